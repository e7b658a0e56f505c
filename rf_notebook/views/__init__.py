"""State to what is seen, without widgets: rows, documents, figures."""
