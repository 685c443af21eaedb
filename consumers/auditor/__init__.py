"""The auditor: results in, stored history and alarms out. It trusts nobody: every result is checked again."""
