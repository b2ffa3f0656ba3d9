"""The parent: slots, workers, rolling reload, canary, control. It never imports the application."""
