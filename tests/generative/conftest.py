"""Its place makes pytest put this folder on the import path, so that the rooms below it can import its operators."""
