"""Side-by-side measurements of what one step costs the client: ``python -m bench``, read with README.md."""
