"""Faces of naica: the command line and the report page. Thin: typed requests in, answers out, no logic of their own."""
