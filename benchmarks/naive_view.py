# SPDX-License-Identifier: Apache-2.0
"""A frame the naive way, for ``frames_http.py`` to measure against.

Flask under gunicorn's threads: a signed token checked, three tables joined by the ORM on a
connection opened for it, an audit row inserted and committed, for each request. The
signature is HMAC-SHA-256, cheaper than the RSA of most sites.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from typing import Any

import peewee
from flask import Flask, Response, request

SECRET = b"benchmark"


def token() -> str:
    """A JSON Web Token that :func:`application` accepts."""
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256"}, {"sub": "reader", "exp": time.time() + 3600})
    )
    signed = head + b"." + body
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET, signed, "sha256")).rstrip(b"=")
    return (signed + b"." + signature).decode()


def application(database_path: str, slide: str) -> Flask:
    """Serves ``/frames/N`` of a file whose offsets stand in ``database_path``."""
    database = peewee.SqliteDatabase(database_path, pragmas={"journal_mode": "wal", "synchronous": 1})

    class Model(peewee.Model):
        class Meta:
            pass

    Model._meta.database = database

    class Study(Model):
        uid = peewee.TextField(unique=True)

    class Series(Model):
        study = peewee.ForeignKeyField(Study)
        uid = peewee.TextField(unique=True)

    class Instance(Model):
        series = peewee.ForeignKeyField(Series)
        uid = peewee.TextField(unique=True)
        path = peewee.TextField()

    class Frame(Model):
        instance = peewee.IntegerField()
        number = peewee.IntegerField()
        offset = peewee.IntegerField()
        length = peewee.IntegerField()

        class Meta:
            indexes = ((("instance", "number"), True),)

    class Audit(Model):
        time = peewee.FloatField()
        actor = peewee.TextField()
        study = peewee.TextField()
        instance = peewee.TextField()
        number = peewee.IntegerField()

    tables: list[Any] = [Study, Series, Instance, Frame, Audit]
    for model in tables:
        model.bind(database)
    app = Flask("naive")
    app.config["tables"] = (database, tables)

    @app.get("/frames/<int:number>")
    def frame(number: int) -> Response:
        signed, _, signature = request.headers["Authorization"].removeprefix("Bearer ").rpartition(".")
        expected = base64.urlsafe_b64encode(hmac.digest(SECRET, signed.encode(), hashlib.sha256)).rstrip(b"=")
        claims = json.loads(base64.urlsafe_b64decode(signed.partition(".")[2] + "=="))
        if not hmac.compare_digest(expected, signature.encode()) or claims["exp"] < time.time():
            return Response(status=401)
        with database.connection_context():
            found = (
                Instance.select(Instance, Series, Study).join(Series).join(Study)
                .where(Study.uid == "1.1", Series.uid == "1.2", Instance.uid == "1.3").get()
            )  # fmt: skip
            place = Frame.get(Frame.instance == found.id, Frame.number == number)
            with open(found.path, "rb") as file:
                file.seek(place.offset)
                data = file.read(place.length)
            Audit.create(time=time.time(), actor=claims["sub"], study="1.1", instance="1.3", number=number)
        return Response(data, content_type="image/jpeg")

    return app


def fill(database_path: str, slide: str, offsets: list[int], lengths: list[int]) -> None:
    database, tables = application(database_path, slide).config["tables"]
    study, series, instance, frame, _ = tables
    with database:
        database.create_tables(tables)
        held = instance.create(
            series=series.create(study=study.create(uid="1.1"), uid="1.2"), uid="1.3", path=slide
        )
        rows = [(held.id, n + 1, o, size) for n, (o, size) in enumerate(zip(offsets, lengths, strict=True))]
        for start in range(0, len(rows), 200):
            frame.insert_many(
                rows[start : start + 200], [frame.instance, frame.number, frame.offset, frame.length]
            ).execute()


if __name__ == "__main__":  # `make bench` runs every file here
    if "NAIVE_DATABASE" not in os.environ:
        print("measured by frames_http.py")
        sys.exit(0)
else:
    if "NAIVE_DATABASE" in os.environ:
        app = application(os.environ["NAIVE_DATABASE"], "")
