"""What a report says: numbers become tables, sentences and figures of one frozen `Report`."""
