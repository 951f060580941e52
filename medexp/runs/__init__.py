"""What a run is: its identity, its record on disk, where its inputs come from, and with what it was made."""
