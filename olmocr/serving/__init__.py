"""One model in this process -> a server that other programs ask: OpenAI's two formats, and whole documents."""
