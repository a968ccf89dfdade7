"""Content of nudges: the words, picture and link that a page shows, its placeholders, and the claims it may make."""
