-- Makes the service's role, which owns its database and can do nothing to the server. The image of Postgres runs it once,
-- as the superuser, when the volume is new.
\set password `printf %s "$BOXOFFICE_DATABASE_PASSWORD"`
create role boxoffice login password :'password';
create database boxoffice owner boxoffice;
