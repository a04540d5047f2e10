"""What a session costs, beside the SDK's, openai-agents-session and redis-py's bare commands: see ``__main__``."""
