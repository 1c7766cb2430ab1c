"""What all stores in SQL share: the tables, filters as conditions, plans, counts and the reading of rows."""
