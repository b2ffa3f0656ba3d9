"""A small application that makes a stop visible: run ``lastcall demo.app:app`` and press Ctrl-C."""
