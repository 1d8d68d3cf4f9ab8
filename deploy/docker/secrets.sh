#!/bin/sh
# Writes random passwords for compose.yaml, once: the database keeps those it was made with. Each service has a file
# of its own, with what it needs and no more.
set -eu
umask 077
folder=$(dirname "$0")/secrets
if [ -e "$folder" ]; then
  echo "$folder is there already: left as it is"
  exit 0
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
superuser=$(random) owner=$(random) app=$(random) read=$(random)
rm -rf "$folder.new"
mkdir "$folder.new"
cat > "$folder.new/postgres.env" <<END
POSTGRES_PASSWORD=$superuser
SITELOG_OWNER_PASSWORD=$owner
SITELOG_APP_PASSWORD=$app
SITELOG_READ_PASSWORD=$read
END
cat > "$folder.new/worker.env" <<END
SITELOG_APP_PASSWORD=$app
SITELOG_READ_PASSWORD=$read
END
cat > "$folder.new/init.env" <<END
SITELOG__DATABASE_CONFIG__OWNER__USERNAME=sitelog_owner
SITELOG__DATABASE_CONFIG__OWNER__PASSWORD=$owner
END
mv "$folder.new" "$folder"
echo "wrote $folder"
