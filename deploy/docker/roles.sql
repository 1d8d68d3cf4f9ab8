-- The roles and the database of compose.yaml, made at Postgres's first start; tables and grants are `sitelog db init`'s.
\set ON_ERROR_STOP on
\getenv owner_password SITELOG_OWNER_PASSWORD
\getenv app_password SITELOG_APP_PASSWORD
\getenv read_password SITELOG_READ_PASSWORD

CREATE ROLE sitelog_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE app_user LOGIN PASSWORD :'app_password';
CREATE ROLE readonly_user LOGIN PASSWORD :'read_password';

-- Byte order: the same on every machine, and what an index on an id wants.
CREATE DATABASE customer_sites
    OWNER sitelog_owner
    TEMPLATE template0
    ENCODING 'UTF8'
    LOCALE 'C';
