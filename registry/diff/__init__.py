"""What lies between two images: facts of each → differences → text, JSON, Markdown."""
