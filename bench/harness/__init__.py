"""The benchmark's machinery: servers as data, processes and their CPU, load by wrk, tables in Markdown."""
