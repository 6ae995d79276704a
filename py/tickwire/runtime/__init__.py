"""What runs beside an engine, for as long as it does: workers, snapshots, exchanges of models, commands."""
