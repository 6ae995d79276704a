"""Tables: read from TOML text, checked, told of where they do not fit, and written. Knows no key."""
