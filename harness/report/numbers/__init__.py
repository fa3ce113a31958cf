"""The numbers of a study: read from the store and computed once, in no format and without words."""
