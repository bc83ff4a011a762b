"""How far what was decoded is from what was recorded: a module a modality. They see samples, never codes."""
