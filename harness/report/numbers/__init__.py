"""The numbers of a study: read from the store and computed once, independent of any format or wording."""
