from pantok.commands import main

if __name__ == "__main__":
    main()
