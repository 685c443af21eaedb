"""What is kept no longer: boundaries by tenant, and the steps that remove what lies before them."""
