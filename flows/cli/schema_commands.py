"""The command that prints what editors complete and check recipes by: schema."""

from typing import Any

from cuvee.flows.cli.app import Session, command


@command("cuvee schema > recipe.schema.json", panel="What a recipe may say")
def schema(session: Session) -> dict[str, Any]:
    """Print the JSON schema of a recipe, by which an editor completes and checks it.

    A recipe whose first line is `# yaml-language-server: $schema=recipe.schema.json` names it.
    """
    from cuvee.flows.recipe.json_schema import recipe_schema, schema_text

    if not session.display.console.stderr:  # with --json the object holds it
        print(schema_text(), end="")
    return {"schema": recipe_schema()}
