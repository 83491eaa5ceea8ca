"""What every room may use: errors, files that are whole or absent, configs, runs, journals."""
