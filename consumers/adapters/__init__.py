"""Shared by the stages, between runtime, store and schemas: settings, error mapping, offsets, quarantine."""
