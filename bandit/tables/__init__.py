"""Tables of text: encodings, separators, types of columns, and errors with row and column. Opens no file itself."""
