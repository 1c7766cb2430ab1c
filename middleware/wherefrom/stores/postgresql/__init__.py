"""The PostgreSQL store: one database, written by any number of processes on any number of hosts."""
