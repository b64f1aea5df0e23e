"""Qt pieces that all modules share; they need Slicer's ``qt`` and ``ctk`` and never wait for work to end."""
