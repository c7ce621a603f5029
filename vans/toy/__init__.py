"""The toy world: its rules, its pictures, its source videos, the oracle that reads its events from pixels."""
