"""
SQLAlchemy with a real PostgreSQL, which enforces constraints and transactions.

    python examples/with_sqlalchemy.py
"""

from sqlalchemy import URL, CheckConstraint, Engine, create_engine, select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import dockertest


class Base(DeclarativeBase):
    """The base class of all tables."""


class Account(Base):
    """An account, whose balance is never negative."""

    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint("balance >= 0"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


def engine_for(pool: dockertest.Pool) -> Engine:
    """Start a server, create the tables, and return SQLAlchemy's engine for it."""
    postgres = pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
    url = URL.create(
        "postgresql+psycopg",
        username="postgres",
        password="secret",
        host=postgres.get_bound_ip(5432),
        port=postgres.get_port(5432),
        database="postgres",
    )
    engine = create_engine(url, connect_args={"connect_timeout": 5})
    # Creating the tables is also the readiness check: it needs a connection, and a partial failure is rolled back.
    postgres.retry(lambda: Base.metadata.create_all(engine), on=OperationalError)
    return engine


def main() -> None:
    """Store and read accounts, and show that a negative balance is rejected."""
    with dockertest.Pool() as pool:
        engine = engine_for(pool)
        with Session(engine) as session, session.begin():
            session.add_all([Account(name="alice", balance=10), Account(name="bob", balance=0)])
        try:
            with Session(engine) as session, session.begin():
                session.add(Account(name="carol", balance=-1))
        except IntegrityError:
            print("carol is refused")
        with Session(engine) as session:
            print(*session.scalars(select(Account.name).order_by(Account.name)))
        engine.dispose()  # close the connections before the server is removed


if __name__ == "__main__":
    main()
