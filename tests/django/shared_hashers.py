"""Django's default hasher with few rounds."""
from django.contrib.auth.hashers import PBKDF2PasswordHasher


class Fast(PBKDF2PasswordHasher):
    iterations = 1000
