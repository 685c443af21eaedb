"""Trained models and the training state, as Postgres holds them."""
