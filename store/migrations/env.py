"""Runs migrations on the connection that store/migrate.py hands over. Sets up no logging and reads
no ini file.
"""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], transaction_per_migration=False
)
with context.begin_transaction():
    context.run_migrations()
