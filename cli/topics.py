"""`sitelog topics`: creates the topics that the configuration names, or checks them."""

import asyncio

import typer

from sitelog.cli._options import ConfigOption, producer_settings_from
from sitelog.streams.topics import check_topics, create_topics

app = typer.Typer(no_args_is_help=True, help="Create the Kafka topics that the configuration names, or check them.")


@app.command()
def create(config: ConfigOption = None) -> None:
    """Create the topics that are missing; those that exist stay as they are.

    Exits with 79 if one has another number of partitions than the configuration says, is compacted, or can't be
    created. What else of an existing one is less than configured is told on stderr.
    """
    settings = producer_settings_from(config)
    created, less = asyncio.run(create_topics(settings))
    for name, topic in settings.kafka_config.topics.items():
        what = "created" if name in created else "was there already"
        typer.echo(f"{name}: {what}, {topic.partitions} partitions")
    for line in less:
        typer.echo(line, err=True)


@app.command()
def check(config: ConfigOption = None) -> None:
    """Check that every topic is there, as the configuration says; change nothing.

    Exits with 79 if one is missing, has another number of partitions, is compacted, or keeps events for less time,
    takes smaller ones only, or acknowledges them with fewer copies than configured.
    """
    settings = producer_settings_from(config)
    unseen = asyncio.run(check_topics(settings))
    for name, topic in settings.kafka_config.topics.items():
        rest = "; its settings may not be seen (DescribeConfigs)" if name in unseen else ""
        typer.echo(f"{name}: ok, {topic.partitions} partitions{rest}")
