"""``python -m soak``: the command, in a file that its processes import for nothing."""

if __name__ == "__main__":
    from soak.main import main

    main()
