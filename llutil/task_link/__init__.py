"""What passes between an Airflow task and its agent process: messages and files.

Both sides import it, so the room may import only the standard library, msgspec and plain values of
``llutil``. It opens no socket and starts no process.
"""
