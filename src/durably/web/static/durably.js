// The dashboard's own script.
