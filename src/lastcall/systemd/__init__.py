"""What systemd and a service tell each other: sd_notify(3), and sockets that systemd has opened. Knows no server."""
