"""Its place makes pytest put this folder on the import path, so that the tests of all parts can import `opinfo`."""
