"""
MongoDB with PyMongo.

    python examples/run_mongodb.py
"""

from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure

import dockertest


def main() -> None:
    """Store a document in a new server and read it back."""
    with dockertest.Pool() as pool:
        mongodb = pool.run(
            "mongo:7.0",
            env={"MONGO_INITDB_ROOT_USERNAME": "admin", "MONGO_INITDB_ROOT_PASSWORD": "secret"},
        )
        url = f"mongodb://admin:secret@{mongodb.get_host_port(27017)}"
        with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=2000) as client:
            mongodb.retry(lambda: client.admin.command("ping"), on=ConnectionFailure)
            items = client["shop"]["items"]
            items.insert_one({"_id": "tea", "price": 3})
            item = items.find_one({"price": {"$lt": 5}})
        assert item == {"_id": "tea", "price": 3}
        print(f"mongo:7.0 gave back {item!r}")


if __name__ == "__main__":
    main()
