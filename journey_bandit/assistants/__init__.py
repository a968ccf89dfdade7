"""Server for assistants (Model Context Protocol): what a running service knows as tools, and changes where allowed."""
