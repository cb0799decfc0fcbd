"""One model in this process -> a server for other programs: OpenAI's two formats, and complete documents."""
