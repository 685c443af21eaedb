"""Local parts for the demo, tests and `make up`: a broker and a Postgres found or started on this machine."""
