"""The trainer: finished journeys from the store, trained models, batch analyses, and the jobs that ask for them."""
