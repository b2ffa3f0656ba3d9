"""The doctor: what will go wrong where the server is going to run, and what to write instead.

``facts_*`` modules read files and run the application; they return the records of ``facts``. ``findings.examine`` turns
those into findings, and is pure.
"""
