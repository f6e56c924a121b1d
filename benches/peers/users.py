"""users.py DATABASE TOKENS: copies the one user there is under each name of the file; by command it would hash 10,000 passwords."""
import sqlite3, sys

store = sqlite3.connect(sys.argv[1])
with store, open(sys.argv[2]) as tokens:
    names = [(line.rstrip("\n").split("\t")[1],) for line in tokens]
    store.executemany("INSERT INTO user (username, password, email, created_at) SELECT ?, password, '', created_at FROM user WHERE id = 1", names)
