#!/usr/bin/env python3
"""A small Django site: its own login page and API, and the application behind doorward.

    shared_site.py migrate
    shared_site.py runserver --noreload PORT

SHARED_DATABASE names the SQLite file that doorward has, too.
"""
import os
import sys

import django
from django.conf import settings

SECRET_KEY = "the key that both sides have, long enough for Django to be content"
OLD_SECRET_KEY = "the key from before the last change of keys, long enough as well"

settings.configure(
    SECRET_KEY=SECRET_KEY,
    SECRET_KEY_FALLBACKS=[OLD_SECRET_KEY],
    DEBUG=False,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SHARED_DATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "rest_framework",
        "rest_framework.authtoken",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {"registration/login.html": "<form method=post>{% csrf_token %}{{ form }}</form>"},
                    )
                ]
            },
        }
    ],
    LOGIN_REDIRECT_URL="/done/",
    LOGOUT_REDIRECT_URL="/done/",
    # A test does not prove that a million rounds are slow.
    PASSWORD_HASHERS=["shared_hashers.Fast", "django.contrib.auth.hashers.ScryptPasswordHasher"],
)
django.setup()

from django.contrib.auth.views import LoginView, LogoutView
from django.http import JsonResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView


class Me(APIView):
    """Who Django says it is."""

    authentication_classes = [SessionAuthentication, TokenAuthentication]
    permission_classes = [IsAuthenticated]

    def get(self, request):
        return Response({"user": request.user.username, "cart": request.session.get("cart")})

    post = get


@csrf_exempt
def behind(request):
    """Behind doorward: who doorward says it is."""
    user = request.META.get("HTTP_REMOTE_USER", "").encode("latin-1").decode()
    return JsonResponse({"user": user})


urlpatterns = [
    path("accounts/login/", LoginView.as_view()),
    path("accounts/logout/", LogoutView.as_view()),
    path("me/", Me.as_view()),
    path("api-token-auth/", obtain_auth_token),
    re_path("^app/", behind),
]

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
