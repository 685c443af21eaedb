"""The reporter: results in, an exact roll-up out, by day and by what reports ask for."""
