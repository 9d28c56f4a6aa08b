"""The sync face: `Client`, its streams and its files, over an `AsyncClient` in a thread."""
